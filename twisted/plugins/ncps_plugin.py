"""Makes `twistd ncps` known; imports nothing of ncps, so that listing plugins stays cheap."""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

ncps = ServiceMaker("ncps", "ncps.tap", "A pull-through binary cache for Nix", "ncps")
ncps_reactor = Reactor("ncps", "ncps.aio.epoll", "epoll with less ado for each event (Linux)")
