// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

#include "gnuplot.hpp"
#include "runs.hpp"

namespace train_mnist {

/// A picture: gnuplot's script, and beside it the data it reads and the PNG it draws.
struct Picture {
  std::string_view name;  ///< of all three, before .gp, .txt and .png
  std::string_view script;
};

/// As figure 1(a) of the paper. The data are two blocks per network, without and with batch normalization: step, accuracy in %.
inline constexpr Picture accuracy_picture = {"train_mnist_accuracy", R"gnuplot(# gnuplot train_mnist_accuracy.gp
set terminal pngcairo size 1000, 500 font ",13"
set output "train_mnist_accuracy.png"
data = "train_mnist_accuracy.txt"
set multiplot layout 1, 2 title "Test accuracy on Fashion-MNIST, with and without batch normalization" font ",15"
set xlabel "training steps, batches of 60 images"
set ylabel "test accuracy, %"
set yrange [60:92]
set grid linetype 1 linecolor rgb "#dddddd"
set key below center horizontal maxrows 1 samplen 2
set bmargin 6
set rmargin 3
set title "three hidden layers of 100 sigmoids"
plot data index 1 with lines linewidth 2.5 linecolor rgb "#1f5fa8" title "with batch normalization", \
     data index 0 with lines linewidth 2.5 linecolor rgb "#d1702a" title "without"
set title "two convolutions 3 x 3 with ReLU and pooling"
plot data index 3 with lines linewidth 2.5 linecolor rgb "#1f5fa8" title "with batch normalization", \
     data index 2 with lines linewidth 2.5 linecolor rgb "#d1702a" title "without"
unset multiplot
)gnuplot"};

/// As figure 1(b, c). Two blocks, without and with batch normalization: step and the percentiles.
inline constexpr Picture distribution_picture = {"train_mnist_distribution", R"gnuplot(# gnuplot train_mnist_distribution.gp
set terminal pngcairo size 1000, 500 font ",13"
set output "train_mnist_distribution.png"
data = "train_mnist_distribution.txt"
stats data index 0:1 using 2 nooutput
lowest = STATS_min
stats data index 0:1 using 4 nooutput
highest = STATS_max
set yrange [floor(lowest - 0.2) : ceil(highest + 0.2)]
set multiplot layout 1, 2 title "What enters a sigmoid of the last hidden layer, while the network learns" font ",15"
set xlabel "training steps, batches of 60 images"
set ylabel "input of the sigmoid"
set grid linetype 1 linecolor rgb "#dddddd"
set key below center horizontal maxrows 1 samplen 2
set bmargin 6
set rmargin 3
do for [i = 0:1] {
  set title (i == 0 ? "without batch normalization" : "with batch normalization")
  plot data index i using 1:2:4 with filledcurves fillcolor rgb "#c9daee" title "15th to 85th percentile", \
       data index i using 1:2 with lines linewidth 1 linecolor rgb "#7c9fc9" notitle, \
       data index i using 1:4 with lines linewidth 1 linecolor rgb "#7c9fc9" notitle, \
       data index i using 1:3 with lines linewidth 2.5 linecolor rgb "#1f5fa8" title "median"
}
unset multiplot
)gnuplot"};

inline constexpr std::array<Picture, 2> pictures = {accuracy_picture, distribution_picture};

inline std::filesystem::path file_of(const Picture& picture, const std::filesystem::path& folder, std::string_view extension) {
  return folder / std::string(picture.name).append(extension);
}

/// Before training: a folder that cannot be written to is found at once.
inline void write_scripts(const std::filesystem::path& folder) {
  for (const Picture& picture : pictures) gnuplot::write_text(file_of(picture, folder, ".gp"), picture.script);
}

/// Blocks of data are set apart by two empty lines.
template <class Runs>
std::string accuracy_data(const Runs& runs) {
  std::string text = "# step, test accuracy in %\n";
  std::array<char, 96> line{};
  for (const Run& run : runs) {
    text += "\n\n# " + full_name(run) + "\n";
    for (const TestPoint& point : run.test) {
      std::snprintf(line.data(), line.size(), "%lld %.2f\n", static_cast<long long>(point.step), 100 * point.accuracy);
      text += line.data();
    }
  }
  return text;
}

template <class Runs>
std::string distribution_data(const Runs& runs) {
  std::string text = "# step, 15th, 50th and 85th percentile of a unit's input over the test set\n";
  std::array<char, 96> line{};
  for (const Run& run : runs) {
    const auto& history = run.last_sigmoid_inputs;
    if (history.points().empty()) continue;
    const std::size_t unit = history.typical_unit();
    text += "\n\n# " + full_name(run) + ", unit " + std::to_string(unit) + "\n";
    for (const auto& point : history.points()) {
      const Percentiles& p = point.units[unit];
      std::snprintf(line.data(), line.size(), "%lld %.4f %.4f %.4f\n", static_cast<long long>(point.step), p[0], p[1], p[2]);
      text += line.data();
    }
  }
  return text;
}

/// Writes the data and draws both pictures; says where they are, or how to draw them where there is no gnuplot.
template <class Runs>
void draw_pictures(const Runs& runs, const std::filesystem::path& folder) {
  gnuplot::write_text(file_of(accuracy_picture, folder, ".txt"), accuracy_data(runs));
  gnuplot::write_text(file_of(distribution_picture, folder, ".txt"), distribution_data(runs));
  for (const Picture& picture : pictures) {
    const std::filesystem::path script = file_of(picture, folder, ".gp");
    if (gnuplot::draw(script) == gnuplot::Outcome::drawn) {
      std::printf("Picture: %s\n", file_of(picture, folder, ".png").lexically_normal().c_str());
    } else {
      std::printf("No picture: gnuplot was not found (in Debian: gnuplot-nox). Later: cd %s && gnuplot %s\n",
                  script.parent_path().lexically_normal().c_str(), script.filename().c_str());
    }
  }
}

}  // namespace train_mnist
