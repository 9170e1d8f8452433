"""How alike audits are: two of them position by position, or several tasks side by side."""
