"""A trained model becomes what is shipped: packed, proven, told in a card."""
