"""The hot tier: Redis or Valkey, one server or a cluster. `hot` opens one; nothing is imported here."""
