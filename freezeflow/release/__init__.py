"""Release builds: locks, proofs of origin, signatures, and how two results differ."""
