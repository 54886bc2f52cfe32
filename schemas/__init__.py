"""The contract between the parts: topics, events and their envelope. Imports pydantic and msgspec only."""
