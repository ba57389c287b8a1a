"""How far predictions lie from points that were held back."""
