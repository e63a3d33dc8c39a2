# What rekeyd uses in Vault, and nothing else: not even the rights of Vault's default policy.
# As shipped: KV version 2 mounted at secret/, the ledger under rekeyd/, records under elevenlabs/, admin keys under
# elevenlabs-admin/.
# Elsewhere: change mount and prefixes to those of REKEYD_LEDGER_MOUNT, REKEYD_LEDGER_PATH and of the
# sinks in the policy file.

# The records, which readers read. Nothing is ever deleted.
path "secret/data/elevenlabs/*" {
  capabilities = ["create", "read", "update"]
}

# Admin keys that policy files name by api_key.vault: read and never written. One that rekeyd rotates lies with the
# records instead.
path "secret/data/elevenlabs-admin/*" {
  capabilities = ["read"]
}

# The ledger: one small document per policy, group and adopted key, and the owner's id.
path "secret/data/rekeyd/*" {
  capabilities = ["create", "read", "update"]
}

# Which entries the ledger has: to rebuild the owner's id, and to find the policies that were removed.
path "secret/metadata/rekeyd/*" {
  capabilities = ["list"]
}

# Whether a rotation could be published is asked before its key is made.
path "sys/capabilities-self" {
  capabilities = ["update"]
}

# How long the token lives, whether it is valid (/readyz), and to make it live on.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

# Whether a mount is KV version 2 is asked at sys/internal/ui/mounts, which needs no right of its own.
