"""A page that shows how runs go while they train, served to this machine alone."""
