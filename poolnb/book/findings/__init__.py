"""What the records say of the claims, and the tables of the experiment pages."""
