# What the images of Python, Node.js and Redis have, where these cannot be had.
FROM localhost/debian
RUN apt-get -qq update \
  && apt-get -qq install -y --no-install-recommends ca-certificates nodejs npm python3 python3-venv redis-server \
  && rm -rf /var/lib/apt/lists/* \
  && ln -s /usr/bin/python3 /usr/local/bin/python \
  && useradd -u 1000 -m node
