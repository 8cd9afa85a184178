"""What is trained, and what training left."""

from hw2 import lazily

__getattr__ = lazily(__name__)
