"""First-party countermeasures, behind the same door as everybody's."""
