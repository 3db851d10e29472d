"""What trackers of experiments are told of runs while these train, from their folders alone."""

from isoflop.tracking.following import Follower, tracking
from isoflop.tracking.trackers import KINDS, Kind, Tracker
