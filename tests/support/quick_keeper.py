"""``producer keeper`` that looks for lost messages more often than in production."""

from producer import cli
from producer.scheduling import lost_messages as lost

if __name__ == "__main__":
    lost.LOOK_SECONDS = 1.0
    cli.main()
