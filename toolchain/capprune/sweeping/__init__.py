"""Many runs of one config in a row: what a grid asks for, what each run reached, one table."""
