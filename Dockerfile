# The base can be replaced, e.g. by a mirror's or a hardened one with the same Node.
ARG BASE=node:26-slim

FROM ${BASE} AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
# the base image is the Node; the package that pins one for checkouts is not needed here
RUN npm ci --ignore-scripts
COPY tsconfig.json ./
COPY .ci/build.ts .ci/build.ts
COPY src src
COPY sandbox sandbox
COPY config config
RUN node .ci/build.ts

FROM ${BASE}
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /build/package.json ./
COPY --from=build /build/dist dist
# state is the only thing ever written: everything else works on a read-only root
RUN ln -s /app/dist/src/main.js /usr/local/bin/attache \
  && mkdir -p /var/lib/attache /etc/attache \
  && chown 1000:1000 /var/lib/attache \
  && chmod 0700 /var/lib/attache
VOLUME /var/lib/attache
# by number, so that Kubernetes can see that it is not root
USER 1000:1000
EXPOSE 7600 7601
ENV ATTACHE_CONFIG=/etc/attache/attache.yaml
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:7601/livez').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["attache"]
CMD ["run"]
