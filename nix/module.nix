# The service of ncps on NixOS. `services.ncps.enable = true;` is enough; see docs/nixos.md.
#
# This module has all options of the `services.ncps` of nixpkgs, with the same meaning, so that a
# configuration for that module works with this one. `settings` accepts all other settings.
{
  config,
  options,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.ncps;

  credentialsDirectory = "/run/credentials/ncps.service";
  stateDirectory = "/var/lib/ncps";

  # A value in a configuration file in JSON.
  value =
    types.nullOr (
      types.oneOf [
        types.bool
        types.int
        types.str
        (types.listOf value)
        (types.attrsOf value)
      ]
    )
    // {
      description = "true or false, a number, text, a list or a set of these";
    };

  # Options, by the key of the setting that each one sets.
  keys = {
    "log.level" = "logLevel";
    "opentelemetry.enabled" = "openTelemetry.enable";
    "opentelemetry.grpc-url" = "openTelemetry.grpcURL";
    "prometheus.enabled" = "prometheus.enable";
    "server.addr" = "server.addr";
    "cache.hostname" = "cache.hostName";
    "cache.allow-delete-verb" = "cache.allowDeleteVerb";
    "cache.allow-put-verb" = "cache.allowPutVerb";
    "cache.sign-narinfo" = "cache.signNarinfo";
    "cache.database-url" = "cache.databaseURL";
    "cache.database.pool.max-open-conns" = "cache.database.pool.maxOpenConns";
    "cache.database.pool.max-idle-conns" = "cache.database.pool.maxIdleConns";
    "cache.cdc.enabled" = "cache.cdc.enabled";
    "cache.cdc.min" = "cache.cdc.min";
    "cache.cdc.avg" = "cache.cdc.avg";
    "cache.cdc.max" = "cache.cdc.max";
    "cache.max-size" = "cache.maxSize";
    "cache.lru.schedule" = "cache.lru.schedule";
    "cache.lru.timezone" = "cache.lru.scheduleTimeZone";
    "cache.lock.backend" = "cache.lock.backend";
    "cache.lock.redis.key-prefix" = "cache.lock.redisKeyPrefix";
    "cache.lock.download-lock-ttl" = "cache.lock.downloadTTL";
    "cache.lock.lru-lock-ttl" = "cache.lock.lruTTL";
    "cache.lock.retry.max-attempts" = "cache.lock.retry.maxAttempts";
    "cache.lock.retry.initial-delay" = "cache.lock.retry.initialDelay";
    "cache.lock.retry.max-delay" = "cache.lock.retry.maxDelay";
    "cache.lock.retry.jitter" = "cache.lock.retry.jitter";
    "cache.lock.allow-degraded-mode" = "cache.lock.allowDegradedMode";
    "cache.redis.addrs" = "cache.redis.addresses";
    "cache.redis.db" = "cache.redis.database";
    "cache.redis.username" = "cache.redis.username";
    "cache.redis.password" = "cache.redis.password";
    "cache.redis.pool-size" = "cache.redis.poolSize";
    "cache.redis.use-tls" = "cache.redis.useTLS";
    "cache.storage.local" = "cache.storage.local";
    "cache.storage.s3.bucket" = "cache.storage.s3.bucket";
    "cache.storage.s3.endpoint" = "cache.storage.s3.endpoint";
    "cache.storage.s3.region" = "cache.storage.s3.region";
    "cache.storage.s3.force-path-style" = "cache.storage.s3.forcePathStyle";
    "cache.temp-path" = "cache.tempPath";
    "cache.upstream.urls" = "cache.upstream.urls";
    "cache.upstream.public-keys" = "cache.upstream.publicKeys";
    "cache.upstream.dialer-timeout" = "cache.upstream.dialerTimeout";
    "cache.upstream.response-header-timeout" = "cache.upstream.responseHeaderTimeout";
  };

  # Files that systemd reads as root for ncps, by the key of the setting that names the file.
  credentials = lib.filterAttrs (_: path: path != null) (
    {
      "cache.netrc-file" = cfg.netrcFile;
      "cache.secret-key-path" = cfg.cache.secretKeyPath;
      "cache.database-url-file" = cfg.cache.databaseURLFile;
      "cache.redis.password-file" = redis.passwordFile or null;
      "cache.storage.s3.access-key-id-file" = s3.accessKeyIdPath or null;
      "cache.storage.s3.secret-access-key-file" = s3.secretAccessKeyPath or null;
    }
    // lib.mapAttrs' (key: lib.nameValuePair "${key}-file") cfg.credentials
  );
  redis = cfg.cache.redis;
  s3 = cfg.cache.storage.s3;

  split = lib.splitString ".";
  find = key: lib.attrByPath (split key) null;
  join = pairs: lib.foldl' lib.recursiveUpdate { } (lib.mapAttrsToList nest pairs);
  nest = key: lib.setAttrByPath (split key);

  # The value of each option that has one, by its key.
  byOption = lib.filterAttrs (_: found: found != null && found != [ ] && found != "") (
    lib.mapAttrs (_: option: find option cfg) keys
  );
  # Whether the configuration sets an option; inside `redis` and `s3`, every value counts as set.
  isSet =
    option:
    let
      found = lib.attrByPath (split option) { } options.services.ncps;
    in
    (found.highestPrio or 0) < (lib.mkOptionDefault { }).priority;

  # `settings`, or a file with the value, overrides the default of an option.
  isSaid = key: find key cfg.settings != null || find "${key}-file" cfg.settings != null;
  saidByOption = lib.filterAttrs (
    key: _: isSet keys.${key} || !(isSaid key || credentials ? "${key}-file")
  ) byOption;
  isInBucket = s3 != null || find "cache.storage.s3.bucket" cfg.settings != null;
  plain = lib.recursiveUpdate (join (
    if isInBucket then removeAttrs saidByOption [ "cache.storage.local" ] else saidByOption
  )) cfg.settings;
  withoutNull =
    values:
    lib.mapAttrs (_: found: if lib.isAttrs found then withoutNull found else found) (
      lib.filterAttrs (_: found: found != null) values
    );
  settings = withoutNull (
    lib.recursiveUpdate plain (
      join (lib.mapAttrs (key: _: "${credentialsDirectory}/${key}") credentials)
    )
  );

  # The build of the system fails if ncps would not start with these settings. The build does not
  # have the credentials, so placeholders replace them in the check.
  placeholder =
    key:
    {
      "cache.database-url" = "postgresql:///ncps";
      "cache.upstream.proxy" = "http://localhost:3128";
      "cache.netrc" = null;
      "cache.secret-key-path" = null;
    }
    .${key} or (lib.concatStrings (lib.genList (_: "secret") 8));
  checked = lib.recursiveUpdate plain (
    join (
      lib.mapAttrs' (
        name: _:
        let
          key = lib.removeSuffix "-file" name;
        in
        lib.nameValuePair key (placeholder key)
      ) credentials
    )
  );
  isChecked =
    cfg.environmentFile == null
    && pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
  configFile = pkgs.writeTextFile {
    name = "ncps.json";
    text = builtins.toJSON settings;
    checkPhase = lib.optionalString isChecked ''
      HOME=$(mktemp -d) ${lib.getExe cfg.package} settings --config ${
        pkgs.writeText "ncps-checked.json" (builtins.toJSON (withoutNull checked))
      } >/dev/null
    '';
  };

  # Directories that ncps writes to, except those that systemd makes.
  isBelow = above: path: path == above || lib.hasPrefix "${above}/" path;
  databaseURL = find "cache.database-url" settings;
  databaseFile =
    if databaseURL == null then null else builtins.match "sqlite3?:(//)?(/.*)" databaseURL;
  directories = lib.unique (
    lib.filter (path: path != null && !isBelow stateDirectory path && !isBelow "/tmp" path) [
      (find "cache.storage.local" settings)
      (if databaseFile == null then null else dirOf (lib.elemAt databaseFile 1))
      (find "cache.temp-path" settings)
    ]
  );
  homes = lib.filter (path: lib.any (home: isBelow home path) [ "/home" "/root" "/run/user" ]) directories;

  both = lib.filter (
    key:
    isSet keys.${key} && find key cfg.settings != null && find key cfg.settings != byOption.${key}
  ) (lib.attrNames byOption);
  filed = lib.filter (
    name:
    let
      key = lib.removeSuffix "-file" name;
    in
    find key cfg.settings != null
    || find name cfg.settings != null
    || (cfg.credentials ? ${key} && find key plain != null)
  ) (lib.attrNames credentials);
  inStore = lib.filter (key: isBelow builtins.storeDir (toString credentials.${key})) (
    lib.attrNames credentials
  );
  secretKeys = import ./secret-settings.nix;
  hasPassword =
    key:
    let
      found = find key plain;
    in
    lib.isString found && builtins.match ".*://[^/@]*:[^/@]+@.*" found != null;
  # Settings whose value is no secret unless it holds a password.
  isHarmless =
    key:
    key == "cache.storage.s3.access-key-id"
    || (lib.elem key [ "cache.database-url" "cache.upstream.proxy" ] && !hasPassword key);
  readable = lib.filter (key: find key plain != null && !isHarmless key) secretKeys;
  noSecrets = lib.filter (key: !lib.elem key secretKeys) (lib.attrNames cfg.credentials);

  fails = assertion: message: { inherit assertion message; };
  nullOr =
    type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };
  switch =
    default: description:
    mkOption {
      type = types.bool;
      inherit default description;
    };
in
{
  # The module of nixpkgs has the same options, so only one of the two can be used.
  disabledModules = [ "services/networking/ncps.nix" ];

  imports = [
    (lib.mkRenamedOptionModule
      [ "services" "ncps" "cache" "dataPath" ]
      [ "services" "ncps" "cache" "storage" "local" ]
    )
    (lib.mkRenamedOptionModule
      [ "services" "ncps" "upstream" "caches" ]
      [ "services" "ncps" "cache" "upstream" "urls" ]
    )
    (lib.mkRenamedOptionModule
      [ "services" "ncps" "upstream" "publicKeys" ]
      [ "services" "ncps" "cache" "upstream" "publicKeys" ]
    )
    (lib.mkRemovedOptionModule
      [ "services" "ncps" "dbmatePackage" ]
      "ncps updates the schema of its database by itself: leave the option out."
    )
  ];

  options.services.ncps = {
    enable = switch false "Whether to run ncps, a binary cache for Nix.";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package of ncps.";
    };

    settings = mkOption {
      type = types.attrsOf value;
      default = { };
      example = {
        server.workers = 2;
        cache.negative.ttl = "30s";
      };
      description = ''
        Every setting of `docs/settings.md`, by its key. A setting here overrides the default of the
        option below for the same setting; to set both to different values is an error. Everybody on
        the machine can read these values: put secrets into `credentials` or `environmentFile`.
      '';
    };

    credentials = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = {
        "cluster.secret" = "/run/secrets/ncps-cluster";
      };
      description = ''
        Files with the values of secret settings, by the key of the setting. systemd reads them as
        root at each start (`LoadCredential=`).
      '';
    };

    environmentFile = nullOr types.path ''
      File with environment variables of ncps, such as `CACHE_DATABASE_URL=…`, which systemd reads
      as root at each start. They override all options.
    '';

    analytics.reporting = {
      enable = switch false "Without effect: ncps sends no reports to anybody.";
      samples = switch false "Without effect: ncps sends no reports to anybody.";
    };

    openTelemetry = {
      enable = switch false "Whether to send traces, metrics and logs with OpenTelemetry.";
      grpcURL = nullOr types.str ''
        URL of the collector for OTLP over gRPC: http://HOST:4317, or https:// for TLS. Without it,
        ncps writes traces and metrics to standard output, which is the journal.
      '';
    };

    prometheus.enable = switch false "Whether to serve metrics for Prometheus at /metrics.";

    logLevel = mkOption {
      type = types.enum [
        "trace"
        "debug"
        "info"
        "warn"
        "error"
        "fatal"
        "panic"
      ];
      default = "info";
      description = "Level of the least important messages that are logged.";
    };

    netrcFile = nullOr types.path "File in the format of netrc with the passwords of upstreams.";

    server.addr = mkOption {
      type = types.either types.str (types.listOf types.str);
      default = ":8501";
      example = "127.0.0.1:8501";
      description = "Address to listen on, or several; without a host, all interfaces.";
    };

    cache = {
      hostName = nullOr types.str ''
        Name of this cache. At the first start, ncps names its signing key after it. Without this
        option, it is the name of the machine.
      '';
      allowDeleteVerb = switch false "Whether clients may delete paths; see `docs/authentication.md`.";
      allowPutVerb = switch false "Whether clients may upload; see `docs/uploads.md`.";
      signNarinfo = switch true "Whether to add the signature of this cache to narinfos.";
      secretKeyPath = nullOr types.path ''
        File with the secret signing key. Without it, ncps makes a key at its first start.
      '';
      maxSize = nullOr types.str "Size of all stored NARs, at most, such as 100G.";
      tempPath = nullOr types.path ''
        Directory for unfinished downloads. Without it, they are inside the store, so that a
        finished download needs no copy.
      '';

      databaseURL = mkOption {
        type = types.nullOr types.str;
        default =
          if cfg.cache.databaseURLFile == null then
            "sqlite:${cfg.cache.storage.local}/db/db.sqlite"
          else
            null;
        defaultText = lib.literalExpression ''"sqlite:''${cfg.cache.storage.local}/db/db.sqlite"'';
        example = "postgresql:///ncps";
        description = ''
          URL of the database, unless `databaseURLFile` is set. Everybody on the machine can read
          it: if it holds a password, use `databaseURLFile` instead.
        '';
      };
      databaseURLFile = nullOr types.path "File with the URL of the database.";
      database.pool = {
        maxOpenConns = nullOr types.int "Connections to the database server, at most.";
        maxIdleConns = nullOr types.int "Connections to the database server that stay open.";
      };

      cdc = {
        enabled = switch false "Without effect: ncps stores NARs whole, not in chunks.";
        min = nullOr types.ints.u32 "Without effect.";
        avg = nullOr types.ints.u32 "Without effect.";
        max = nullOr types.ints.u32 "Without effect.";
      };

      lru = {
        schedule = nullOr types.str ''
          Times at which ncps removes old NARs, before `maxSize` forces it: five fields of cron, or
          a word such as @daily.
        '';
        scheduleTimeZone = nullOr types.str "Time zone of the schedule, such as Europe/Berlin.";
      };

      lock = {
        backend =
          nullOr
            (types.enum [
              "local"
              "redis"
              "postgresql"
            ])
            ''
              Place of the locks, which let one process at a time fetch an object. local: for one
              machine. redis, or postgresql (the database): for several machines. Without this
              option: redis if `redis` is set, else local.
            '';
        redisKeyPrefix = nullOr types.str "Prefix of all keys in Redis.";
        downloadTTL = nullOr types.str "Time after which the locks of a dead instance are free.";
        lruTTL = nullOr types.str "The same time for the lock under which old NARs are removed.";
        retry = {
          maxAttempts = nullOr types.int "Without effect: a wait lasts as long as its request.";
          initialDelay = nullOr types.str "Time between the first two checks of a lock.";
          maxDelay = nullOr types.str "Longest time between two checks of a lock.";
          jitter = nullOr types.bool "Whether to shorten these times at random.";
        };
        allowDegradedMode = nullOr types.bool ''
          Whether to fetch also while the lock backend is away. Several instances may then fetch the
          same NAR.
        '';
      };

      redis = nullOr (types.submodule {
        options = {
          addresses = mkOption {
            type = types.listOf types.str;
            example = [ "redis:6379" ];
            description = "Redis servers, each as host:port.";
          };
          database = nullOr types.int "Number of the database in Redis.";
          username = nullOr types.str "User in Redis.";
          password = nullOr types.str ''
            Password in Redis. Everybody on the machine can read it: use `passwordFile` instead.
          '';
          passwordFile = nullOr types.path "File with the password in Redis.";
          poolSize = nullOr types.int "Without effect: ncps uses two connections for everything.";
          useTLS = nullOr types.bool "Whether to use TLS to Redis.";
        };
      }) "Redis servers for the locks.";

      storage = {
        local = mkOption {
          type = types.path;
          default = stateDirectory;
          description = ''
            Directory that keeps NARs, narinfos, the signing key and the database. With `s3`, only
            the database.
          '';
        };
        s3 = nullOr (types.submodule {
          options = {
            bucket = mkOption {
              type = types.str;
              description = "Name of the bucket.";
            };
            endpoint = mkOption {
              type = types.str;
              example = "https://s3.amazonaws.com";
              description = "URL of the S3 server.";
            };
            region = nullOr types.str "Region of the bucket.";
            forcePathStyle = nullOr types.bool "Whether URLs have the bucket in their path.";
            accessKeyIdPath = nullOr types.path ''
              File with the access key ID. Without it, ncps looks for credentials where AWS's own
              tools do.
            '';
            secretAccessKeyPath = nullOr types.path "File with the secret access key.";
          };
        }) "Bucket that keeps NARs, narinfos and the signing key, instead of a directory.";
      };

      upstream = {
        urls = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "https://cache.nixos.org" ];
          description = "Binary caches to fetch from; https://cache.nixos.org if the list is empty.";
        };
        publicKeys = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
          description = ''
            Public keys with which narinfos of upstreams may be signed; each key counts for all
            upstreams. The key of https://cache.nixos.org need not be given.
          '';
        };
        dialerTimeout = nullOr types.str "Time to connect to an upstream.";
        responseHeaderTimeout = nullOr types.str "Time that an upstream has to start its answer.";
      };
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      (fails (cfg.cache.databaseURL == null || cfg.cache.databaseURLFile == null) ''
        services.ncps.cache.databaseURL and services.ncps.cache.databaseURLFile are both set: set one of them.
      '')
      (fails
        (
          find "cache.lru.schedule" settings == null
          || find "cache.max-size" settings != null
          || cfg.environmentFile != null
        )
        ''
          services.ncps.cache.lru.schedule is set and services.ncps.cache.maxSize is not: set the size above which old NARs are removed.
        ''
      )
      (fails ((redis.password or null) == null || (redis.passwordFile or null) == null) ''
        services.ncps.cache.redis.password and services.ncps.cache.redis.passwordFile are both set: set one of them.
      '')
      (fails (cfg.cache.lock.backend == "redis" -> find "cache.redis.addrs" settings != null) ''
        services.ncps.cache.lock.backend is "redis" and services.ncps.cache.redis is not set: set its addresses.
      '')
      (fails (redis != null -> cfg.cache.lock.backend == null || cfg.cache.lock.backend == "redis") ''
        services.ncps.cache.redis is set and services.ncps.cache.lock.backend is "${toString cfg.cache.lock.backend}": leave one of them out, or set the backend to "redis".
      '')
      (fails ((s3.accessKeyIdPath or null) == null -> (s3.secretAccessKeyPath or null) == null) ''
        services.ncps.cache.storage.s3.secretAccessKeyPath is set and accessKeyIdPath is not: set both, or neither.
      '')
      (fails ((s3.secretAccessKeyPath or null) == null -> (s3.accessKeyIdPath or null) == null) ''
        services.ncps.cache.storage.s3.accessKeyIdPath is set and secretAccessKeyPath is not: set both, or neither.
      '')
    ]
    ++ map (
      key:
      fails false ''
        services.ncps.${keys.${key}} and services.ncps.settings.${key} are both set, to different values: set one of them.
      ''
    ) both
    ++ map (
      key:
      fails false ''
        The setting ${lib.removeSuffix "-file" key} of services.ncps is given twice, at least once as a file: leave one of them out.
      ''
    ) filed
    ++ map (
      key:
      fails false ''
        services.ncps.settings."${key}": leave out the quotation marks, so that the key is a path of several names.
      ''
    ) (lib.filter (lib.hasInfix ".") (lib.attrNames cfg.settings))
    ++ map (
      key:
      fails false ''
        services.ncps.credentials."${key}": ncps reads no setting of that name from a file. docs/settings.md marks the settings that it can read from a file as secret.
      ''
    ) noSecrets
    ++ lib.optional (homes != [ ]) (
      fails (!(config.systemd.services.ncps.serviceConfig.ProtectHome or false)) ''
        services.ncps uses ${lib.concatStringsSep ", " homes}, which the service cannot see (ProtectHome): choose a directory elsewhere, such as below /var/lib.
      ''
    );

    warnings =
      map (key: ''
        services.ncps: the file of the setting ${lib.removeSuffix "-file" key} is in the Nix store, where everybody can read it.
      '') inStore
      ++ map (key: ''
        services.ncps: the setting ${key} holds a secret, which everybody on the machine can read in the Nix store. Put it into services.ncps.credentials."${key}" or services.ncps.environmentFile.
      '') readable
      ++ lib.optional cfg.analytics.reporting.enable ''
        services.ncps.analytics.reporting.enable has no effect: ncps sends no reports to anybody.
      '';

    users.users.ncps = {
      isSystemUser = true;
      group = "ncps";
    };
    users.groups.ncps = { };

    systemd.tmpfiles.settings.ncps = lib.genAttrs directories (_: {
      d = {
        user = "ncps";
        group = "ncps";
        mode = "0700";
      };
    });

    systemd.services.ncps = {
      description = "ncps, a binary cache for Nix";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "postgresql.service"
        "postgresql.target"
        "mysql.service"
      ];

      environment.SSL_CERT_FILE = lib.mkDefault "/etc/ssl/certs/ca-certificates.crt";

      unitConfig = {
        RequiresMountsFor = [ stateDirectory ] ++ directories;
        # If a database is away, the start fails. systemd then tries again without end.
        StartLimitIntervalSec = 0;
      };

      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe cfg.package} serve --config ${configFile}";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        User = "ncps";
        Group = "ncps";
        StateDirectory = "ncps";
        StateDirectoryMode = "0700";
        RuntimeDirectory = "ncps";
        RuntimeDirectoryMode = "0700";
        LoadCredential = lib.mapAttrsToList (key: path: "${key}:${toString path}") credentials;

        # Exit code 2 means wrong settings, so that another start would fail, too.
        Restart = "on-failure";
        RestartSec = 5;
        RestartPreventExitStatus = 2;
        # A start updates the schema, which may take minutes with a large database.
        TimeoutStartSec = "15min";
        WatchdogSec = 30;
        KillMode = "mixed";
        LimitNOFILE = 65536;

        # As in deploy/ncps.service; a test compares both.
        ProtectSystem = "strict";
        ReadWritePaths = directories;
        ProtectHome = true;
        PrivateTmp = true;
        UMask = "0077";

        CapabilityBoundingSet = "";
        AmbientCapabilities = "";
        NoNewPrivileges = true;
        PrivateUsers = true;
        RestrictSUIDSGID = true;
        RemoveIPC = true;

        PrivateDevices = true;
        DevicePolicy = "closed";
        DeviceAllow = [ "" ];
        PrivateMounts = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProcSubset = "pid";

        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged @resources"
          # Recompression lowers the priority of its process with these calls.
          "setpriority"
          "sched_setscheduler"
        ];
        SystemCallErrorNumber = "EPERM";
      }
      // lib.optionalAttrs (cfg.environmentFile != null) {
        EnvironmentFile = cfg.environmentFile;
      };
    };
  };
}
