# Tests in machines of NixOS: a client gets a path of an upstream through ncps, with the default
# settings, with PostgreSQL, and with a bucket. They need KVM:
#
#   nix build .#checks.x86_64-linux.plain
{
  lib,
  testers,
  emptyFile,
}:
let
  # Keys of this test only.
  key = "upstream-1:WIaLg+UYgtQs51mdkU824fWNcH49SZXKow+5+fkvHGVOKzPlHYVL1EhfDt5+3SV2MyWGmOfKt4C9nJv3nJFBvg==";
  publicKey = "upstream-1:Tisz5R2FS9RIXw7eft0ldjMlhpjnyreAvZyb95yRQb4=";

  # A cache with one signed path, made when the machine starts.
  upstream =
    { pkgs, ... }:
    {
      networking.firewall.allowedTCPPorts = [ 80 ];
      system.extraDependencies = [ emptyFile ];
      services.nginx = {
        enable = true;
        virtualHosts.default.root = "/var/cache/upstream";
      };
      systemd.services.nginx.wants = [ "upstream.service" ];
      systemd.services.upstream = {
        wantedBy = [ "multi-user.target" ];
        before = [ "nginx.service" ];
        path = [ pkgs.nix ];
        serviceConfig.Type = "oneshot";
        script = ''
          nix --extra-experimental-features nix-command copy \
            --to "file:///var/cache/upstream?secret-key=${pkgs.writeText "key" key}" ${emptyFile}
          chmod -R a+rX /var/cache/upstream
        '';
      };
    };

  client = {
    nix.settings = {
      substituters = lib.mkForce [ "http://ncps:8501" ];
      # The test adds the key of ncps.
      trusted-public-keys = lib.mkForce [ ];
    };
    virtualisation.writableStore = true;
  };

  ncps = more: {
    imports = [
      ./module.nix
      more
    ];
    networking.firewall.allowedTCPPorts = [ 8501 ];
    services.ncps = {
      enable = true;
      cache.hostName = "ncps";
      cache.upstream = {
        urls = [ "http://upstream" ];
        publicKeys = [ publicKey ];
      };
    };
  };

  path = toString emptyFile;
  script =
    {
      before ? "",
      stored,
    }:
    ''
      start_all()
      upstream.wait_for_unit("upstream.service")
      upstream.wait_for_unit("nginx.service")
      ${before}
      ncps.wait_for_unit("ncps.service")
      client.wait_until_succeeds("curl --fail http://ncps:8501/ | grep '\"hostname\":\"ncps\"'")

      # A client that trusts only the key of ncps gets the path.
      key = client.succeed("curl --fail http://ncps:8501/pubkey").strip()
      realise = "nix-store --realise --option trusted-public-keys '" + key + "' ${path}"
      client.succeed(realise)

      # The client gets the path again from the store, without the upstream, after a restart with
      # another schema update.
      ${stored}
      upstream.shutdown()
      ncps.succeed("systemctl restart ncps.service")
      ncps.wait_for_unit("ncps.service")
      client.succeed("nix-store --delete ${path}")
      client.succeed(realise)

      exposure = ncps.succeed("systemd-analyze security --threshold=15 ncps.service")
      print(exposure)
    '';

  test =
    name:
    {
      more ? { },
      others ? { },
      before ? "",
      stored ? ''ncps.wait_until_succeeds("ls /var/lib/ncps/store/nar/*/*/*")'',
    }:
    testers.runNixOSTest {
      name = "ncps-${name}";
      nodes = {
        inherit upstream client;
        ncps = ncps more;
      }
      // others;
      testScript = script { inherit before stored; };
    };
in
{
  plain = test "plain" { };

  # ncps reaches the database on the same machine by its socket, without a password.
  postgresql = test "postgresql" {
    more = {
      services.ncps.cache.databaseURL = "postgresql:///ncps";
      services.postgresql = {
        enable = true;
        ensureDatabases = [ "ncps" ];
        ensureUsers = [
          {
            name = "ncps";
            ensureDBOwnership = true;
          }
        ];
      };
    };
  };

  s3 = test "s3" {
    more =
      { pkgs, ... }:
      {
        services.ncps.cache.storage.s3 = {
          bucket = "ncps";
          endpoint = "http://s3:9000";
          forcePathStyle = true;
          accessKeyIdPath = toString (pkgs.writeText "s3-id" "ncps-id");
          secretAccessKeyPath = toString (pkgs.writeText "s3-secret" "ncps-secret");
        };
      };
    others.s3 =
      { pkgs, ... }:
      {
        networking.firewall.allowedTCPPorts = [ 9000 ];
        services.minio = {
          enable = true;
          rootCredentialsFile = pkgs.writeText "minio" ''
            MINIO_ROOT_USER=ncps-id
            MINIO_ROOT_PASSWORD=ncps-secret
          '';
        };
        environment.systemPackages = [ pkgs.minio-client ];
      };
    before = ''
      s3.wait_for_unit("minio.service")
      s3.wait_until_succeeds("mc alias set local http://127.0.0.1:9000 ncps-id ncps-secret")
      s3.succeed("mc mb local/ncps")
    '';
    stored = ''
      s3.wait_until_succeeds("mc find local/ncps --name '*.nar*' | grep store/nar/")
    '';
  };
}
