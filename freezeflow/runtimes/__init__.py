"""What runs exported files: one runtime, one file, each in a confined process of its own."""
