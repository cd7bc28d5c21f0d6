# R entrants of the benchmarks: "setup NAME", "run", "quit" on stdin, one line of JSON each on stdout.  Folder of the data: BENCH_DATA
folder <- Sys.getenv("BENCH_DATA")
read <- function(name) { d <- read.csv(file.path(folder, paste0(name, ".csv"))); d$g <- factor(d$g); d }
logit <- reformulate(c(paste0("x", 1:17), "g"), "y")
big <- y ~ x1 + x2 + x3 + x4 + x5 + x6 + g
W <- list(
  "W2/R lm" = list("w02_lm_small", function(d) coef(lm(y ~ x1 + x2 + g, d))),
  "W2/R lm + summary" = list("w02_lm_small", function(d) coef(summary(lm(y ~ x1 + x2 + g, d)))[, 1]),
  "W3/R lm" = list("w03_lm_big", function(d) coef(lm(big, d))),
  "W3/R .lm.fit" = list("w03_lm_big", function(d) .lm.fit(model.matrix(big[-2], d), d$y)$coefficients),
  "W4/R glm" = list("w04_logit", function(d) coef(glm(logit, binomial, d))))
peak <- function() as.numeric(gsub("[^0-9]", "", grep("VmHWM", readLines("/proc/self/status"), value = TRUE))) / 1024
say <- function(...) cat(sprintf(...), "\n", sep = "")
input <- file("stdin", "r")
while (length(line <- readLines(input, 1)) && line != "quit") {
  if (startsWith(line, "setup ")) {
    w <- W[[sub("setup ", "", line)]]; d <- read(w[[1]]); gc()
    try(writeLines("5", "/proc/self/clear_refs"), silent = TRUE)
    say('{"peak": %.1f}', peak())
  } else {
    t <- proc.time()[[3]]; n <- 0
    repeat { b <- w[[2]](d); n <- n + 1; if (proc.time()[[3]] - t > 0.2) break }
    say('{"seconds": %.9f, "peak": %.1f, "coef": [%s]}', (proc.time()[[3]] - t) / n, peak(), paste(sprintf("%.17g", b), collapse = ","))
  }
}
