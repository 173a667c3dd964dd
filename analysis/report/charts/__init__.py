"""The charts of the report by the part of the page that shows them, each with its SQL."""
