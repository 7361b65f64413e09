"""Proof that a packed file is still the model it was made from: a certificate, and the checks it is made of."""
