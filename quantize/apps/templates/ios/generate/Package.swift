// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "SmallModel",
    platforms: [.iOS(.v16)],
    products: [.library(name: "SmallModel", targets: ["SmallModel"])],
    targets: [
        .binaryTarget(name: "llama", path: "llama.xcframework"),
        .target(name: "Core", dependencies: ["llama"], publicHeadersPath: "include"),
        .target(name: "SmallModel", dependencies: ["Core"], resources: [.copy("model")]),
    ],
    cxxLanguageStandard: .cxx17
)
