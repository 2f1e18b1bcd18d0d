from tests.support.server_launch import launch, running

__all__ = ["launch", "running"]
