"""The finance corpus that ships with the package."""
