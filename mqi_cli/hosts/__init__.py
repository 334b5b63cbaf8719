"""Places where files go and commands run: one contract, `ssh` and `local`."""
