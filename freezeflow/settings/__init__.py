"""What a user chooses for a machine or a project: flags over environment over files."""
