# The example's frontend: docker build -f deploy/frontend.Dockerfile -t session_manager-example-frontend .

FROM node:22-slim AS build
ENV NEXT_TELEMETRY_DISABLED=1
WORKDIR /build
COPY clients/react clients/react
RUN npm ci --prefix clients/react --no-audit --no-fund && npm run build --prefix clients/react
COPY examples/frontend examples/frontend
WORKDIR /build/examples/frontend
RUN npm ci --no-audit --no-fund && npm run build && npm prune --omit=dev --no-audit --no-fund

FROM node:22-slim
ENV NODE_ENV=production NEXT_TELEMETRY_DISABLED=1
COPY --from=build /build/examples/frontend /app
WORKDIR /app
USER node
EXPOSE 3000
CMD ["node", "node_modules/next/dist/bin/next", "start", "--hostname", "0.0.0.0", "--port", "3000"]
