"""The bundle: its manifest, its files, its packed form, and the check of it all."""
