"""What a person looks at: data in, text or JSON out."""
