"""What several tests share: fakes of the server's parts, and a server in a process of its own."""
