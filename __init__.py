"""edgestill: data and a teacher go in, a small model file comes out that is proven on its device."""

__version__ = "0.1.0"
