"""From config to objects: models, initial weights, and the one door between (assemble.py)."""
