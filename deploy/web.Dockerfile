# nginx with the chat page, before the API. The context is the repository:
#
#     docker build -f deploy/web.Dockerfile -t tallyformer-web .
#
# NGINX_IMAGE  the base; give name@sha256:DIGEST to pin it to the byte
ARG NGINX_IMAGE=nginx:1.28-alpine

FROM ${NGINX_IMAGE}
COPY deploy/nginx /etc/nginx/tallyformer
COPY src/tallyformer/server/page /srv/page
USER 101:101
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=6 \
  CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8080/"]
STOPSIGNAL SIGQUIT
ENTRYPOINT ["nginx", "-c", "/etc/nginx/tallyformer/nginx.conf", "-g", "daemon off;"]
CMD []
