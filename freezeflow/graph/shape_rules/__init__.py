"""What each op says of the shapes of its outputs: one file for each family of ops."""
