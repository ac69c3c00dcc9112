# Keys of the settings that ncps can read from a file; a test compares them with the program.
[
  "cache.database-url"
  "cache.database.password"
  "cache.get-token"
  "cache.redis.password"
  "cache.redis.sentinel-password"
  "cache.storage.s3.access-key-id"
  "cache.storage.s3.secret-access-key"
  "cache.storage.s3.session-token"
  "cache.upstream.proxy"
  "cluster.secret"
  "opentelemetry.headers"
]
