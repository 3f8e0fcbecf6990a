"""Worker hosts: SSH, the agent that runs there, enrolment."""
