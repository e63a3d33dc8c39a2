#!/bin/sh
# The script that a careful person writes before there is a tool: rotate.sh ACCOUNT. It reads the record's version,
# creates a key, tries it, and writes it down by check-and-set. Environment: SIM, ADMIN_KEY, VAULT_ADDR, VAULT_TOKEN.
set -eu
account=$1
path=shell/$account
version=$(vault kv metadata get -mount=secret -format=json "$path" 2>/dev/null | jq '.data.current_version') || version=0
key=$(curl -fsS -H "xi-api-key: $ADMIN_KEY" -H 'Content-Type: application/json' \
  -d "{\"name\": \"shell.$account.$(date +%s%N)\", \"permissions\": [\"text_to_speech\", \"user_read\"]}" \
  "$SIM/v1/service-accounts/$account/api-keys" | jq -r '."xi-api-key"')
curl -fsS -o /dev/null -H "xi-api-key: $key" "$SIM/v1/user"
printf %s "$key" | vault kv put -mount=secret -cas="${version:-0}" "$path" api_key=- >/dev/null
