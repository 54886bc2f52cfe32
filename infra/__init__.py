"""Everything that touches the world: buses, stores, artifacts, settings, brokers, processes."""
