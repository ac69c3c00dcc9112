# Sets of options for our own `services.ncps`: those of nixpkgs' module; what ours has beside; and
# options that contradict each other.
let
  enabled = more: { enable = true; } // more;
  with_ = cache: enabled { inherit cache; };
  redis.addresses = [ "redis:6379" ];
  s3 = {
    bucket = "ncps";
    endpoint = "http://s3.example.org:9000";
  };
in
import ./nixpkgs_sets.nix
// {
  "nothing but enable" = enabled { };
  "not enabled" = { };

  "settings" = enabled {
    settings = {
      server.addr = [ "127.0.0.1:8501" ];
      server.workers = 1;
      cache.negative.ttl = "30s";
      cache.temp-path = "/var/tmp/ncps";
      cache.max-size = null;
    };
  };
  "settings that agree with options" = enabled {
    logLevel = "warn";
    settings.log.level = "warn";
  };
  "database by settings" = enabled {
    settings.cache.database-url = "sqlite:///srv/ncps/db.sqlite";
  };
  "database on the machine" = with_ { databaseURL = "postgresql:///ncps"; };
  "variables" = enabled { environmentFile = "/run/secrets/ncps.env"; };
  "credentials" = {
    enable = true;
    cache.databaseURLFile = "/run/secrets/database-url";
    credentials."cluster.secret" = "/run/secrets/cluster";
    settings.cluster.advertise-url = "http://10.0.0.7:8501";
  };
  "Redis alone says the backend" = with_ { inherit redis; };
  "a bucket by settings" = enabled {
    settings.cache.storage = { inherit s3; };
    credentials."cache.storage.s3.access-key-id" = "/run/secrets/s3-id";
    credentials."cache.storage.s3.secret-access-key" = "/run/secrets/s3-secret";
  };

  "secrets in the Nix store" = with_ {
    secretKeyPath = "${builtins.storeDir}/00000000000000000000000000000000-key";
    databaseURL = "postgresql://ncps:easypwd@db/ncps";
  };
  "reports" = enabled { analytics.reporting.enable = true; };
  "a typing mistake" = enabled { settings.cache.hostnme = "ncps"; };
  "a key in one word" = enabled { settings."cache.hostname" = "ncps"; };
  "locks without their database" = with_ { lock.backend = "postgresql"; };
  "a wrong value" = with_ { maxSize = "a lot"; };

  "two databases" = with_ {
    databaseURL = "postgresql:///ncps";
    databaseURLFile = "/run/secrets/database-url";
  };
  "a schedule without a size" = with_ { lru.schedule = "@daily"; };
  "two passwords of Redis" = with_ {
    redis = redis // {
      password = "easypwd";
      passwordFile = "/run/secrets/redis-password";
    };
  };
  "a backend that is not there" = with_ { lock.backend = "redis"; };
  "Redis for another backend" = with_ {
    inherit redis;
    lock.backend = "local";
  };
  "half of the keys of a bucket" = with_ {
    storage.s3 = s3 // {
      accessKeyIdPath = "/run/secrets/s3-id";
    };
  };
  "option and setting differ" = enabled {
    logLevel = "warn";
    settings.log.level = "debug";
    cache.hostName = "one";
    settings.cache.hostname = "two";
  };
  "a secret as value and as file" = enabled {
    credentials."cluster.secret" = "/run/secrets/cluster";
    settings.cluster.secret = "easypwd-easypwd-easypwd";
  };
  "a credential that is no secret" = enabled {
    credentials."cache.hostname" = "/run/secrets/name";
  };
  "a store in a home" = with_ { storage.local = "/home/me/ncps"; };
}
