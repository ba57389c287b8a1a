"""What runs where and when, decided from numbers alone: what engines need, what nodes have, what groups take."""
