package hostiletest

// configInputs are configurations of which none may do harm, accepted or refused.
func configInputs() []input {
	return []input{
		{Name: "nothing"},
		{Name: "a policy file that is a directory", Env: map[string]string{"REKEYD_POLICY_FILE": "/"}},
		{Name: "not YAML", Policies: "\x00\x01"},
	}
}
