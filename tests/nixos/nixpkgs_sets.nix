# Fourteen sets of options for the `services.ncps` of nixpkgs: the defaults, those of its own tests,
# and what people write.
let
  nixos = {
    urls = [ "https://cache.nixos.org" ];
    publicKeys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
  };
  community = {
    urls = nixos.urls ++ [ "https://nix-community.cachix.org?priority=41" ];
    publicKeys = nixos.publicKeys ++ [
      "nix-community.cachix.org-1:mB9FSh9qf2dCimDSUo8Zy7bkq5CX+/rkCWyvRCYg3Fs="
    ];
  };
  s3 = {
    bucket = "ncps";
    endpoint = "http://s3.example.org:9000";
    region = "us-west-1";
    forcePathStyle = true;
    accessKeyIdPath = "/run/secrets/s3-id";
    secretAccessKeyPath = "/run/secrets/s3-secret";
  };
  minimal = {
    enable = true;
    cache = {
      hostName = "ncps";
      upstream = nixos;
    };
  };
  with_ = more: minimal // { cache = minimal.cache // more; };
in
{
  defaults = minimal;

  "a store elsewhere and a key" = with_ {
    secretKeyPath = "/run/secrets/key";
    storage.local = "/path/to/ncps";
  };

  "directory of the database" = with_ {
    databaseURL = "sqlite:/path/to/ncps/db.sqlite";
  };

  "names of old" = {
    enable = true;
    cache = {
      hostName = "ncps.example.org";
      dataPath = "/mnt/hd/ncps/data";
      tempPath = "/mnt/hd/ncps/tmp";
      databaseURL = "sqlite:/mnt/hd/ncps/db/db.sqlite";
      maxSize = "200G";
      lru.schedule = "0 2 * * *";
      allowPutVerb = true;
      allowDeleteVerb = true;
    };
    server.addr = "0.0.0.0:8501";
    upstream.caches = community.urls;
    upstream.publicKeys = community.publicKeys;
  };

  "size and schedule" = with_ {
    maxSize = "50G";
    lru.schedule = "@daily";
    lru.scheduleTimeZone = "Europe/Berlin";
  };

  "several upstreams and their credentials" = {
    enable = true;
    netrcFile = "/run/secrets/netrc";
    logLevel = "debug";
    cache = {
      hostName = "ncps";
      upstream = community // {
        dialerTimeout = "5s";
        responseHeaderTimeout = "10s";
      };
    };
  };

  "without signatures of its own" = with_ {
    signNarinfo = false;
  };

  metrics = minimal // {
    prometheus.enable = true;
    analytics.reporting.enable = false;
    openTelemetry.enable = false;
  };

  "chunks" = with_ {
    cdc = {
      enabled = true;
      min = 32768;
      avg = 131072;
      max = 524288;
    };
  };

  "PostgreSQL" = with_ {
    databaseURL = "postgresql://ncps:easypwd@postgres:5432/ncps?sslmode=disable";
    database.pool = {
      maxOpenConns = 20;
      maxIdleConns = 5;
    };
  };

  "PostgreSQL by a file" = with_ {
    databaseURL = null;
    databaseURLFile = "/run/secrets/database-url";
  };

  "a bucket" = with_ {
    storage = {
      inherit s3;
    };
  };

  "Redis" = with_ {
    lock.backend = "redis";
    lock.redisKeyPrefix = "nix:ncps:";
    redis = {
      addresses = [ "redis:6379" ];
      database = 1;
      password = "easypwd";
    };
  };

  "several machines" = {
    enable = true;
    analytics.reporting.enable = false;
    cache = {
      hostName = "ncps0";
      databaseURL = null;
      databaseURLFile = "/run/secrets/database-url";
      lock = {
        backend = "redis";
        downloadTTL = "5m0s";
        lruTTL = "30m0s";
        retry = {
          maxAttempts = 5;
          initialDelay = "200ms";
          maxDelay = "3s";
          jitter = false;
        };
        allowDegradedMode = true;
      };
      redis = {
        addresses = [ "redis:6379" ];
        passwordFile = "/run/secrets/redis-password";
        poolSize = 20;
      };
      secretKeyPath = "/run/secrets/key";
      storage = {
        inherit s3;
      };
      upstream = nixos;
    };
  };
}
