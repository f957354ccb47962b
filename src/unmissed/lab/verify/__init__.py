"""``unmissed verify``: disturbs clients, networks and servers, and checks every history against what is guaranteed."""
