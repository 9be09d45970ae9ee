"""Faithfulness of explanations: whether silencing what they name changes the decision."""
