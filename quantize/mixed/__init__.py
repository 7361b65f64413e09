"""Types of tensors dealt out to a budget of bytes by what each costs."""
