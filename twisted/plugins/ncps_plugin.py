"""Makes `twistd ncps` known; imports nothing of ncps, so that listing plugins stays cheap."""

from twisted.application.service import ServiceMaker

ncps = ServiceMaker("ncps", "ncps.tap", "A pull-through binary cache for Nix", "ncps")
