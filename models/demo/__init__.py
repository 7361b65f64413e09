"""The demo's task: a seeded grammar of spoken home requests, its schema, and the teacher trained on it."""
