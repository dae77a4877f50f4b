# One image for everything of this repository that docker-compose.yml runs: worker, switchback, supervisor and lab.
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=local
# Modules first: they change less often than the code.
COPY go.mod go.sum ./
COPY lab/go.mod lab/go.sum lab/
RUN go mod download && cd lab && go mod download
COPY . .
RUN go build -trimpath -ldflags="-s -w" -o /out/ ./worker ./supervisor \
 && go build -trimpath -ldflags="-s -w" -o /out/switchback ./starter \
 && cd lab && go build -trimpath -ldflags="-s -w" -o /out/lab .

FROM alpine:3.22.1
RUN adduser -D -u 1000 switchback
COPY --from=build /out/ /usr/local/bin/
USER 1000:1000
WORKDIR /home/switchback
CMD ["switchback", "--help"]
