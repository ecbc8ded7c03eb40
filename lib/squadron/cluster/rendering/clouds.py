"""Where `ray up` finds the machines of a cluster: a cloud, or addresses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from squadron.core.config import Config


class Ssh(Config):
    """How machines are reached."""

    user: str = Field("ubuntu", pattern=r"^[a-z_][a-z0-9_-]*$")
    private_key: str = Field("~/.ssh/id_ed25519", description="the path of a file on the machine of `ray up`")


class Cloud(Config):
    """What is the same for every file of `ray up`: what is secret lies in a folder of the machine that gives the
    command, with the files `token`, `ca.crt`, `ca.key` and, where secrets are asked for, `env`."""

    ssh: Ssh = Ssh()
    secrets_folder: str = Field("~/.squadron/cluster", pattern=r"^[~/][\w./~-]*$")
    internal: bool = Field(True, description="reach machines by their addresses inside of their network")


class Aws(Cloud):
    """EC2. The security groups are yours, since the one that Ray makes is open for SSH from everywhere."""

    provider: Literal["aws"]
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    subnets: tuple[str, ...] = Field(min_length=1)
    security_groups: tuple[str, ...] = Field(min_length=1, description="SSH from you; everything among themselves")
    key_name: str = Field(min_length=1, description="of the pair that ssh.private_key belongs to")
    machine_image: str = Field(pattern=r"^ami-[0-9a-f]+$", description="with Docker, and NVIDIA's driver for cards")
    instance_profile: str | None = Field(None, description="the role of the nodes, for storage; None: Ray's own")
    head_type: str = "m7i.2xlarge"
    machine_type: str | None = Field(None, description="of the profile's machines, such as p5.48xlarge")
    cpu_type: str = "m7i.4xlarge"
    disk_gb: int = Field(200, ge=50)


class Gcp(Cloud):
    """Compute Engine. No machine has an address outside of its network."""

    provider: Literal["gcp"]
    project: str = Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")
    region: str = Field(pattern=r"^[a-z]+-[a-z]+\d$")
    zone: str = Field(pattern=r"^[a-z]+-[a-z]+\d-[a-z]$")
    subnetwork: str = Field(min_length=1, description="projects/P/regions/R/subnetworks/S")
    machine_image: str = Field(min_length=1, description="with Docker, and NVIDIA's driver for cards")
    head_type: str = "n2-standard-8"
    machine_type: str | None = Field(None, description="of the profile's machines, such as a3-highgpu-8g")
    cpu_type: str = "n2-standard-16"
    disk_gb: int = Field(200, ge=50)


class OnPremise(Cloud):
    """Machines that are there, by SSH."""

    provider: Literal["local"]
    head: str = Field(min_length=1)
    workers: tuple[str, ...] = Field(min_length=1)


CloudSpec = Annotated[Aws | Gcp | OnPremise, Field(discriminator="provider")]
