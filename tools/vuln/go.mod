module switchback/tools/vuln

go 1.26.0
