"""What is trained, and what training left."""
